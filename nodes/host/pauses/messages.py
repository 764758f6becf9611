"""What server and browser say to each other about pauses.

The browser announces itself with POST /explainable_latents/pauses/here, a JSON object {client_id}: it can show pauses.
That holds for the websocket it has at this moment, so it does so again after every reconnection; the open pauses of
this client are then sent again. The answer is {connected: whether this client has a websocket here, pauses: how many
are open}.

The server sends `explainable_latents.pause` to the one client that queued the run:

    id, token   of the pause, 32 hexadecimal digits each; the token is asked for with every answer
    revision    0, and one more each time it is sent again to a browser that announced itself anew
    run, node, workflow   ids of the run, of the sampler node that waits ("5:12" in a subgraph), of its workflow or null
    kind        "mask": a mask may be painted; "step": values may be changed; "end": the run has made its last step
    actions     what may be answered; "end here" only at a step, "go back" only where there are `stops`
    step, steps, sigma    the step that is about to be entered, of how many, and its noise level
    stops       the earlier stops of this run that one can go back to, the first one first: {kind, step, picture: a data
                URL or null}
    variants    those that are finished, each with its picture as a data URL or null; full: whether there may be no more
    stop_at_end whether the run stops once more at its end; null where there can be one variant only
    pictures    what the model predicts now: for each picture of the batch a data URL; [] where its latents have no
                known colours
    maps        {file, type}: heat maps of the words, in the inspector's format (`core.maps.packing`), or null
    size        [width, height] of each mask, or null
    found       of a mask: for each picture what was found, an 8-bit grey PNG as a data URL, 255 inside; else []
    start       of a mask: for each picture what the painter begins with; as `found`, or with what was painted before
    values      of a step: numbers [{name: "cfg" or "blend", value, low, high, step}] and texts [{name: "prompt" or
                "weights", value, letters: how many there may be}]
    seconds     the time limit, or null for none; left: what is left of it now, or null
    then        what happens when the time is over, or nobody comes back within `grace` seconds after the connection was
                lost: "continue" or "cancel"
    grace       seconds

The browser answers with POST /explainable_latents/pauses/{id}, as multipart/form-data:

    client      its client id
    token, revision   of the message
    action      "seen" as soon as it is shown; "more time" to start the clock anew; "show" to have one model call
                predict with other values, after which the pause is sent again with these, their pictures and maps and
                the next revision; "continue", which finishes the run at its end; "end here", which makes the prediction
                the result; "go back" to an earlier stop, to answer it in another way: what came after it is dropped,
                or, at the end of the run, kept as a finished variant; "cancel"
    to          with "go back": which of `stops`, from 0
    stop_at_end with "continue" and "end here" before the end: "true" or "false"; left out, it stays as it was
    mask        with "continue" of a mask: none to take what the painter began with, else one file for each picture, in
                their order: an 8-bit grey PNG of exactly the announced size
    values      with "continue" or "show" of a step: a JSON object {name: number or text}; names that are left out keep
                their value

The answer is {state, left}, or {error} with status 403 (wrong token), 404 (no such pause, or of another client), 409
(answered already, or an old revision: taken over elsewhere), 413 (too large) or 422 (anything else that is wrong with
it). After 403 to 422 the pause goes on, and nothing of the request was applied.

When a pause is over the server sends `explainable_latents.pause_closed` with id, run, node, workflow, step and
`reason`: "continue", "end here", "go back", "cancel" (by the user, here or in the queue), "unseen" (no browser showed
it), "left" (nobody came back), "timeout" or "error".
"""

from __future__ import annotations

PAUSE, PAUSE_CLOSED = "explainable_latents.pause", "explainable_latents.pause_closed"
HERE, ANSWER = "/explainable_latents/pauses/here", "/explainable_latents/pauses/{id}"

# What a browser may ask for.
SEEN, MORE_TIME, SHOW, CONTINUE, END, CANCEL = "seen", "more time", "show", "continue", "end here", "cancel"
BACK = "go back"
# Further reasons why a pause is over.
UNSEEN, LEFT, TIMEOUT, ERROR = "unseen", "left", "timeout", "error"
# Kinds of pauses.
MASK, STEP, AT_END = "mask", "step", "end"
ACTIONS = {
    MASK: [SEEN, CONTINUE, BACK, MORE_TIME, CANCEL],
    STEP: [SEEN, SHOW, CONTINUE, END, BACK, MORE_TIME, CANCEL],
    AT_END: [SEEN, CONTINUE, BACK, MORE_TIME, CANCEL],
}

# What may be changed at a pause of a step, by its name: numbers, and texts.
CFG, BLEND, PROMPT, WEIGHTS = "cfg", "blend", "prompt", "weights"
TEXTS = (PROMPT, WEIGHTS)
Value = float | str
