"""The archive: Parquet files by venue, symbol and UTC day, and a manifest that says what is in them.

``Archive`` reads, ``ArchiveWriter`` writes; importing recordings is built on the writer. pyarrow is
imported by the functions that need it, so that importing this package stays cheap.
"""

from gpuscalp.archive.reader import Archive, choose_venue
from gpuscalp.archive.series import BookSeries
from gpuscalp.archive.writer import ArchiveWriter

__all__ = ["Archive", "ArchiveWriter", "BookSeries", "choose_venue"]
