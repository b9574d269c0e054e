"""Half-maps, poses and CTF: what each particle should look like in its movie."""
