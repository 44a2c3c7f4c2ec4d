"""Running the network: stages, exported and compiled, with what each frame contributes kept."""
