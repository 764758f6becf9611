"""What is read from the workflow that runs: which node it is, and which texts are encoded before it."""

from explainable_latents.nodes.host.graph import identity, running
from explainable_latents.nodes.host.same_prompt import encoded_texts


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


GRAPH = {
    "1": node("CheckpointLoaderSimple", ckpt_name="a"),
    "2": node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-2),
    "3": node("CLIPTextEncode", clip=["2", 0], text="a dog"),
    "4": node("CLIPTextEncode", clip=["1", 1], text="a cat"),
    "5": node("ConditioningCombine", conditioning_1=["3", 0], conditioning_2=["4", 0]),
    "6": node("KSampler", model=["1", 0], positive=["5", 0], seed=1),
    "7": node("CLIPTextEncode", clip=["1", 1], text="behind the sampler"),
}


def test_a_node_is_the_same_under_other_ids_and_another_one_when_anything_before_it_changes():
    renamed = {
        f"x{name}": node(
            each["class_type"],
            **{
                key: [f"x{value[0]}", value[1]] if isinstance(value, list) else value
                for key, value in each["inputs"].items()
            },
        )
        for name, each in GRAPH.items()
    }
    assert identity(GRAPH, "6") == identity(renamed, "x6")
    changed = {**GRAPH, "2": node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-1)}
    assert identity(changed, "6") != identity(GRAPH, "6")
    assert identity(changed, "4") == identity(GRAPH, "4")
    assert identity(GRAPH, "of a loop") is None


def test_a_chain_of_any_length_has_an_identity():
    chain = {str(i): node("LoraLoaderModelOnly", model=[str(i - 1), 0]) for i in range(1, 5000)}
    chain["0"] = GRAPH["1"]
    assert identity(chain, "4999") != identity(chain, "4998")


def test_the_texts_that_are_encoded_before_a_node():
    assert sorted(encoded_texts(GRAPH, "6")) == ["a cat", "a dog"]


def test_nothing_runs_outside_the_hosts_execution():
    assert running() is None
