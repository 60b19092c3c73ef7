"""The project: its folder, settings and ledger, how it is made or forked, and the files that leave and enter it."""
