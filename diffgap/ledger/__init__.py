"""The ledger of trials and sweeps on disk: what is finished, running, locked and logged."""
