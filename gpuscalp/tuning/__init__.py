"""Tuning: many configurations on one archive, and a bundle of the best one.

Ray, Optuna and XGBoost are imported when they are needed, not with this package.
"""

from __future__ import annotations

from gpuscalp.tuning.run import TuneResult, tune_archive

__all__ = ["TuneResult", "tune_archive"]
