"""What a panel is, and how it becomes one of Grafana's.

Owns: the look that all panels share, layout, variables. The queries stand beside, one file a dashboard.
Expressions are PromQL with two short words: ``@`` is the session that was chosen, ``@s`` also the symbols.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import heatmap as h
from grafana_foundation_sdk.models import prometheus as p

Steps = Sequence[tuple[float | None, str]]
GOOD: Steps = ((None, "green"),)
PLAIN: Steps = ((None, "blue"),)
_SOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")
_SESSION = 'instance=~"$instance"'
_SYMBOLS = _SESSION + ', symbol=~"$symbol"'


@dataclass(frozen=True)
class Panel:
    """One panel.

    Parameters
    ----------
    queries : (expression, legend); a legend names labels as ``{{stage}}``
    unit : of Grafana, such as ``s``, ``percentunit``, ``currencyUSD``
    steps : (from value, colour), the first from None
    words : value → (text, colour), where a number stands for a state
    stacked, points : of a time series
    """

    title: str
    what: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: Literal["lines", "number", "bars", "heat"] = "lines"
    width: int = 12
    steps: Steps = PLAIN
    words: Sequence[tuple[str, str, str]] = ()
    low: float | None = None
    high: float | None = None
    decimals: int | None = None
    stacked: bool = False
    log: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


def or_none(expression: str, label: str) -> str:
    """Return an expression that is 0 under the name ``none`` while a session has nothing to count."""
    none = f'label_replace(0 * max(gpuscalp_frames_total{{@}}), "{label}", "none", "", "")'
    return f"({expression}) or on () {none}"


def board(uid: str, title: str, what: str, rows: Sequence[Row]) -> d.Dashboard:
    """Return a dashboard: the last 15 minutes, renewed every 5 seconds."""
    made = (
        build.Dashboard(title)
        .uid(uid)
        .description(what)
        .tags(["gpuscalp"])
        .readonly()
        .time("now-15m", "now")
        .refresh("5s")
        .timezone("browser")
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("gpuscalp")
            .type(d.DashboardLinkType.DASHBOARDS)
            .tags(["gpuscalp"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .annotation(_alerts())
    )
    for variable in _variables():
        made.with_variable(variable)
    numbers = itertools.count(1)  # links to a panel name it by its number
    for row in rows:
        made.with_row(build.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            made.with_panel(_made(panel).id(next(numbers)))
    return made.build()


def _alerts() -> Any:
    """Alerts as marks on every time series."""
    return (
        build.AnnotationQuery()
        .name("Alerts")
        .datasource(_SOURCE)
        .enable(True)
        .icon_color("red")
        .expr('ALERTS{alertstate="firing", severity!="info", alertname=~"Gpuscalp.*"}')
    )


def _variables() -> list[Any]:
    def query(name: str, label: str, text: str) -> Any:
        return (
            build.QueryVariable(name)
            .label(label)
            .datasource(_SOURCE)
            .query({"query": text, "refId": name})
            .refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(d.VariableSort.ALPHABETICAL_ASC)
        )

    return [
        build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        query("session", "Session", "label_values(gpuscalp_session_info, session)"),
        query("instance", "", 'label_values(gpuscalp_session_info{session="$session"}, instance)').hide(
            d.VariableHide.HIDE_VARIABLE
        ),
        query("symbol", "Symbol", f"label_values(gpuscalp_symbol_silent{{{_SESSION}}}, symbol)")
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(d.VariableOption(text="All", value="$__all", selected=True)),
    ]


def _made(panel: Panel) -> Any:
    made = {"lines": _lines, "number": _number, "bars": _bars, "heat": _heat}[panel.kind](panel)
    made.title(panel.title).description(panel.what).datasource(_SOURCE).unit(panel.unit)
    made.span(panel.width).height({"number": 4, "bars": 8, "heat": 8, "lines": 8}[panel.kind])
    made.thresholds(
        build.ThresholdsConfig()
        .mode(d.ThresholdsMode.ABSOLUTE)
        .steps([d.Threshold(value=value, color=color) for value, color in panel.steps])
    )
    if panel.words:
        options = {
            value: d.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, text, color) in enumerate(panel.words)
        }
        made.mappings([d.ValueMap(options=options)])
    for name, value in (("min", panel.low), ("max", panel.high), ("decimals", panel.decimals)):
        if value is not None:
            getattr(made, name)(value)
    for index, (expression, legend) in enumerate(panel.queries):
        made.with_target(_query(panel, expression, legend, chr(ord("A") + index)))
    return made


def _query(panel: Panel, expression: str, legend: str, ref_id: str) -> Any:
    chosen = expression.replace("@s", _SYMBOLS).replace("@", _SESSION)
    query = prometheus.Dataquery().expr(chosen).legend_format(legend).ref_id(ref_id).datasource(_SOURCE)
    if panel.kind == "heat":
        query.format(p.PromQueryFormat.HEATMAP)
    return query.instant() if panel.kind == "bars" else query.range()


def _lines(panel: Panel) -> Any:
    made = (
        timeseries.Panel()
        .line_width(2 if not panel.stacked else 1)
        .fill_opacity(60 if panel.stacked else 8)
        .show_points(c.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(
            common.VizLegendOptions()
            .display_mode(c.LegendDisplayMode.TABLE)
            .placement(c.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    )
    if len(panel.steps) > 1:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED))
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL).group("A"))
    if panel.log:
        made.scale_distribution(common.ScaleDistributionConfig().type(c.ScaleDistribution.LOG).log(10))
    return made


def _number(panel: Panel) -> Any:
    return (
        stat.Panel()
        .color_mode(c.BigValueColorMode.BACKGROUND if panel.words else c.BigValueColorMode.VALUE)
        .graph_mode(c.BigValueGraphMode.NONE if panel.words else c.BigValueGraphMode.AREA)
        .text_mode(c.BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _bars(panel: Panel) -> Any:
    return (
        bargauge.Panel()
        .show_unfilled(panel.high is not None)
        .display_mode(c.BarGaugeDisplayMode.GRADIENT)
        .orientation(c.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _heat(panel: Panel) -> Any:
    return (
        heatmap.Panel()
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(h.HeatmapColorMode.SCHEME).scheme("Turbo").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(panel.unit))
        .cell_gap(1)
    )
