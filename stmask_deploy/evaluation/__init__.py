"""How good a result is: average precision over videos, identities, and agreement of two runs."""
