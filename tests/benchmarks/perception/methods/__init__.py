"""The methods that are measured, one module each: `rows(world: World) -> list[Row]`."""

# In the order in which they run; rows of the same table are printed together, whichever module they are from.
METHODS = (
    "word_maps",
    "looked_for",
    "prompt_differences",
    "regions",
    "correspondence",
    "taught_regions",
    "transformer_maps",
)
