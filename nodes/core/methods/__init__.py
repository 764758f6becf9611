"""One paper or method per file: pure arithmetic, plus the options that describe it.

Read `masked_latent` first (what happens to the latent), then `masking` (where the mask comes from) and `painted_mask`
(what a user paints over it). `prompt_to_prompt` lets a picture take over another one's attention,
`mutual_self_attention` its texture, `plug_and_play` its layout, `cross_image_attention` and `eye_for_an_eye` (with
`appearance`) the appearance of a third one. `inversion` finds the noise that leads to a picture, `trajectory` is the
way there, `prompt_difference` is where two prompts disagree about it. `regional_attention` gives parts of a picture
prompts of their own, `structured_diffusion` the things of a prompt values of their own, `dense_diffusion` puts them
into segments of the picture. `guidance` moves the latent while it is sampled,
`attend_and_excite` so that no word is forgotten, `box_losses` so that each is in its place, of which
`word_places` tells, `self_guidance` so that a thing is moved or resized, which `word_shapes` measures, `picture_score`
so that the picture scores better. `diffseg` cuts a picture into regions. `correspondence` is about two pictures: where
a place of one is in the other. `taught_regions` learns from a few masked pictures.
"""
