"""Search over rays: which points to try next, and when to stop. Knows no cryo-EM."""
