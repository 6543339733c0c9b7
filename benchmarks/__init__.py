"""What OpenChat costs and how fast it is, measured through real processes: `make bench`."""
