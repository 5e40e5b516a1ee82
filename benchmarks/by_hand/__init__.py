"""The steps by hand, in plain torch, as an expert would write them for speed."""
