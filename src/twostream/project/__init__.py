"""The project: its folder, its settings, its ledger; how one is made or forked; tables in and out."""
