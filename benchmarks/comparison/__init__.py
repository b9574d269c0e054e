"""Parts of the comparison with RELION: run programs and measure them, score results against the truth, print tables."""
