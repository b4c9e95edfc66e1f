"""Self-contained HTML reports: a page of sections with tables and SVG figures. Used by train and backtest."""

from gpuscalp.report.html import Section, Table, render, write_report

__all__ = ["Section", "Table", "render", "write_report"]
