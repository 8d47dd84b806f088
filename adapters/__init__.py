"""One file per server under test, found by name if it has an ADAPTER. Sans-IO: no socket, no clock."""
