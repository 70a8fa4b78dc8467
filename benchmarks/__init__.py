"""Side-by-side measurements, one command each; they print what they ran on."""
