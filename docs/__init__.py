"""The documentation: pages written by hand beside this file, and the generators of the others."""
