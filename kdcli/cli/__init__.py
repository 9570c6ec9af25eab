"""The command line: one subcommand a file. No tensor is touched here."""
