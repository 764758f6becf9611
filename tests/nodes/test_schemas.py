"""What holds for the schema of every node."""

import importlib
import inspect

from tests.tools.comfyui.paths import ROOT


def test_a_nodes_inputs_are_the_parameters_of_its_execute_in_the_same_order_optional_ones_last(nodes):
    for name, node in nodes.items():
        schema = node.GET_SCHEMA()  # also validates
        assert schema.node_id == node.__name__ == name
        inputs = sorted(schema.inputs, key=lambda each: bool(each.optional))
        assert [each.id for each in inputs] == list(inspect.signature(node.execute).parameters), name


def test_an_optional_input_has_the_same_default_in_the_schema_and_in_execute(nodes):
    """A graph for the API leaves optional inputs out: what it gets then is what the node's help says."""
    for name, node in nodes.items():
        parameters = inspect.signature(node.execute).parameters
        for each in node.define_schema().inputs:
            default = parameters[each.id].default
            assert (default is not inspect.Parameter.empty) == bool(each.optional), f"{name}.{each.id}"
            if each.optional:
                assert default == getattr(each, "default", None), f"{name}.{each.id}"


def test_every_file_lists_its_nodes_and_every_node_is_in_the_menu_once(nodes):
    listed = []
    for file in sorted((ROOT / "nodes").glob("*.py")):
        module = vars(importlib.import_module(f"explainable_latents.nodes.{file.stem}"))
        written = [each for name, each in module.items() if name.startswith("EL") and inspect.isclass(each)]
        assert module.get("NODES", []) == written, file.name
        listed += written
    assert len(listed) == len(nodes)
    assert set(listed) == set(nodes.values())


def test_all_nodes_stand_in_one_place_of_the_menu(nodes):
    assert {node.define_schema().category for node in nodes.values()} == {"explainable latents"}
