"""What venues send, decoded. Pure: bytes in, typed rows out; no sockets, no files, no clock."""
