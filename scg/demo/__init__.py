"""The demonstration: a tour of the library, on one page."""
