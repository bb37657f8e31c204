"""What readers get of a trained machine: top-N lists and item clusters."""
