"""Model: what it predicts, how often it is right, whether the market still looks as in training."""

from __future__ import annotations

from scripts.dashboards.panel import Panel, Row

_RATIO = "percentunit"


def _quantile(share: float, name: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({name}_bucket{{@}}[$__rate_interval])))"


ROWS = (
    Row(
        "Now",
        (
            Panel(
                "Accuracy",
                "Share of rows of the window whose likeliest class came.",
                (("gpuscalp_live_accuracy_ratio{@}", ""),),
                _RATIO,
                "number",
                4,
                decimals=1,
            ),
            Panel(
                "Better than the base",
                "Accuracy less that of always naming the most frequent class.",
                (("gpuscalp_live_accuracy_ratio{@} - gpuscalp_live_base_accuracy_ratio{@}", ""),),
                _RATIO,
                "number",
                4,
                ((None, "red"), (0.0, "green")),
                decimals=1,
            ),
            Panel(
                "Calibration error",
                "Of the likeliest class, 10 bins.",
                (("gpuscalp_live_calibration_error_ratio{@}", ""),),
                _RATIO,
                "number",
                4,
                ((None, "green"), (0.05, "orange"), (0.1, "red")),
                decimals=1,
            ),
            Panel(
                "Drift",
                "Largest mean stability index of a group. Above 0.25 the features have changed.",
                (("max(gpuscalp_feature_psi{@})", ""),),
                "none",
                "number",
                4,
                ((None, "green"), (0.1, "orange"), (0.25, "red")),
                decimals=3,
            ),
            Panel(
                "Age of the model",
                "Since the end of its training data.",
                (("gpuscalp_model_age_seconds{@}", ""),),
                "s",
                "number",
                4,
                ((None, "green"), (604800.0, "orange"), (2592000.0, "red")),
            ),
            Panel(
                "Matured rows",
                "In the window that all live figures are computed from.",
                (("gpuscalp_live_rows{@}", ""),),
                "short",
                "number",
                4,
            ),
        ),
    ),
    Row(
        "Right or wrong",
        (
            Panel(
                "Accuracy",
                "Live, of always naming the most frequent class, and on held-out rows of training.",
                (
                    ("gpuscalp_live_accuracy_ratio{@}", "live"),
                    ("gpuscalp_live_base_accuracy_ratio{@}", "base"),
                    ("gpuscalp_held_out_accuracy_ratio{@}", "held out"),
                ),
                _RATIO,
            ),
            Panel(
                "Log loss",
                "Live, of saying the class shares, and on held-out rows. Lower is better; live "
                "above base has no skill.",
                (
                    ("gpuscalp_live_log_loss_nats{@}", "live"),
                    ("gpuscalp_live_base_log_loss_nats{@}", "base"),
                    ("gpuscalp_held_out_log_loss_nats{@}", "held out"),
                ),
                "none",
                decimals=4,
            ),
            Panel(
                "Precision",
                "Of the rows that were given a class, the share that it came for.",
                (("gpuscalp_live_precision_ratio{@}", "{{class}}"),),
                _RATIO,
                low=0,
                high=1,
                width=8,
            ),
            Panel(
                "Recall",
                "Of the rows that a class came for, the share that were given it.",
                (("gpuscalp_live_recall_ratio{@}", "{{class}}"),),
                _RATIO,
                low=0,
                high=1,
                width=8,
            ),
            Panel(
                "F1",
                "Harmonic mean of precision and recall.",
                (("gpuscalp_live_f1_ratio{@}", "{{class}}"),),
                _RATIO,
                low=0,
                high=1,
                width=8,
            ),
            Panel(
                "Brier score and calibration error",
                "0 is best; 2 and 1 are worst.",
                (
                    ("gpuscalp_live_brier_score{@}", "Brier score"),
                    ("gpuscalp_live_calibration_error_ratio{@}", "calibration error"),
                ),
                "none",
                low=0,
                decimals=4,
            ),
            Panel(
                "Class balance",
                "Of predictions and of the labels that came.",
                (
                    ("gpuscalp_live_predicted_ratio{@}", "{{class}} predicted"),
                    ("gpuscalp_live_matured_ratio{@}", "{{class}} came"),
                ),
                _RATIO,
                low=0,
                high=1,
            ),
        ),
    ),
    Row(
        "Predictions",
        (
            Panel(
                "Predictions a second",
                "Rows by their likeliest class.",
                (("sum by (class) (rate(gpuscalp_predictions_total{@}[$__rate_interval]))", "{{class}}"),),
                low=0,
                stacked=True,
            ),
            Panel(
                "Labels a second",
                "Rows whose label has matured, by the class that came.",
                (("sum by (class) (rate(gpuscalp_labels_matured_total{@}[$__rate_interval]))", "{{class}}"),),
                low=0,
                stacked=True,
            ),
            Panel(
                "Distribution of confidence",
                "Probability of the likeliest class.",
                (
                    (
                        "sum by (le) "
                        "(rate(gpuscalp_prediction_confidence_ratio_bucket{@}[$__rate_interval]))",
                        "{{le}}",
                    ),
                ),
                _RATIO,
                "heat",
            ),
            Panel(
                "Distribution of agreement",
                "Share of members that agree with the ensemble.",
                (
                    (
                        "sum by (le) (rate(gpuscalp_prediction_agreement_ratio_bucket{@}[$__rate_interval]))",
                        "{{le}}",
                    ),
                ),
                _RATIO,
                "heat",
            ),
            Panel(
                "Confidence",
                "Quantiles.",
                tuple(
                    (_quantile(share, "gpuscalp_prediction_confidence_ratio"), f"p{share * 100:g}")
                    for share in (0.1, 0.5, 0.9)
                ),
                _RATIO,
                low=0,
                high=1,
            ),
            Panel(
                "Score: prediction",
                "Of 20 points.",
                (('gpuscalp_score_part{@, part="prediction"}', "prediction"),),
                "none",
                low=0,
                high=20,
            ),
        ),
    ),
    Row(
        "Drift",
        (
            Panel(
                "Mean drift by group of features",
                "Population stability index against the training rows. 0.1: look; 0.25: the "
                "market has changed.",
                (("gpuscalp_feature_psi{@}", "{{group}}"),),
                "none",
                steps=((None, "green"), (0.1, "orange"), (0.25, "red")),
                low=0,
                decimals=3,
            ),
            Panel(
                "Largest drift of one feature",
                "In each group.",
                (("gpuscalp_feature_psi_max{@}", "{{group}}"),),
                "none",
                low=0,
                decimals=3,
            ),
            Panel(
                "Flag and outliers",
                "The flag is up while drift is more than chance. Outliers: share of rows unlike all of the "
                "training; one in a thousand is ordinary.",
                (("gpuscalp_drift_flag{@}", "flag"), ("gpuscalp_outlier_ratio{@}", "outliers")),
                "none",
                low=0,
                high=1,
                decimals=4,
            ),
            Panel(
                "Rows behind it",
                "Live rows that the drift was computed from.",
                (("gpuscalp_feature_psi_rows{@}", "rows"),),
                low=0,
            ),
            Panel(
                "Model in use",
                "Digest of the bundle.",
                (("gpuscalp_model_info{@}", "{{bundle}}"),),
                "none",
                low=0,
                high=1,
            ),
        ),
    ),
)
