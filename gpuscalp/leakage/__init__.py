"""Detection of look-ahead: change what is not known yet, and see whether a row that was known has changed.

``examine`` works on any function from ticks to rows, so that own features and labels can be tested the same
way as the shipped ones; ``check_leakage`` runs it over everything shipped and over a suite of planted leaks
that it has to catch. docs/features.md has an example.
"""

from gpuscalp.leakage.detector import Finding, Probe, Rows, examine
from gpuscalp.leakage.futures import FUTURES, Future
from gpuscalp.leakage.suite import LeakageReport, check_leakage

__all__ = ["FUTURES", "Finding", "Future", "LeakageReport", "Probe", "Rows", "check_leakage", "examine"]
