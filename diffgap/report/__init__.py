"""The summary stage: tables of finished trials, with statistics beside every number."""
