"""Models, one self-contained folder each; `auto` registers them with transformers."""
