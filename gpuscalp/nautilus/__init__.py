"""The engine of a live session in NautilusTrader: its strategy, its backtests, its catalogs.

``desk``, ``names``, ``rows`` and ``reports`` know the shapes of Nautilus's objects and import none of it;
the other files need the extra ``nautilus`` (``gpuscalp.nautilus.installed.require`` says so where it is
missing). Nothing is imported here, so that ``gpuscalp --help`` stays quick.
"""
