"""No token lost, none twice, proven by killing things: `make chaos`."""
