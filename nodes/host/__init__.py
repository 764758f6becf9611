"""Every touch of ComfyUI.

    families/    what depends on the model family: its attention layers, and how its network is called
    attention/   what happens where a model computes attention: captures and their handle
    autograd/    gradients of a model call, the only place that leaves inference mode
    features/    what a network's blocks put out for a picture: correspondence, teaching by pictures
    sampling/    what happens between the steps of a sampler: masked latents, their report, runs
    editing/     a source picture sampled beside the target, which takes over its attention
    pauses/      a running sampler asks the user and waits
    ui/          progress, text and pictures for the user

Single files: `tokens` (the prompt as the connected CLIP tokenizes it), `context_rows` (which row of the encoded prompt
holds which token), `llama_tokens` and `unreadable_encoders` (what is wrong there), `parsed_words` (its words for the
browser),
`one_call` (one model call on an existing picture), `regions` (such calls, to cut pictures into regions), `same_prompt`
(are the subjects' words those that are sampled?), `handles` with `graph` (a sampler runs again when its handle is
gone), `compiled` (compiled models), `early_exit` (when the rest of a call may be left out), `patch_names` (what to call
another node's patch).
"""
