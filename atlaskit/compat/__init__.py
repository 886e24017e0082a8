"""Names and numbers of earlier packages, for people who come from them; each flaw told once."""
