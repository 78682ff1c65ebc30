"""Quality of results: average precision over videos, identities, and agreement of two runs."""
