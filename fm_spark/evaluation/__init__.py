"""How good the lists are on held-out events, beside baselines."""
