"""Which pods of a Service may be called."""

from typing import Any

from services.orchestrator.replicas.endpoint_slices import ready_addresses


def slice_of(*endpoints: dict[str, Any], kind: str = "IPv4", **changes: Any) -> dict[str, Any]:
    ports = [{"name": "metrics", "port": 9090}, {"name": "grpc", "port": 50053}]
    return {"addressType": kind, "ports": ports, "endpoints": list(endpoints), **changes}


def pod(address: str, name: str = "", **conditions: bool | None) -> dict[str, Any]:
    target = {"targetRef": {"kind": "Pod", "name": name}} if name else {}
    return {"addresses": [address], "conditions": conditions, **target}


def test_pods_of_all_slices_are_found_at_the_port_named_grpc() -> None:
    slices = [slice_of(pod("10.0.0.2", ready=True)), slice_of(pod("10.0.0.1", ready=True))]

    assert ready_addresses(slices, 1) == ["10.0.0.1:50053", "10.0.0.2:50053"]


def test_pods_that_are_not_ready_or_about_to_end_are_left_out() -> None:
    slices = [
        slice_of(
            pod("10.0.0.1", ready=False),
            pod("10.0.0.2", ready=False, serving=True, terminating=True),
            pod("10.0.0.3", ready=True, serving=True, terminating=True),
            pod("10.0.0.4", ready=True, serving=True, terminating=False),
        )
    ]

    assert ready_addresses(slices, 1) == ["10.0.0.4:50053"]


def test_conditions_that_are_not_said_count_as_ready() -> None:
    unsaid = {"addresses": ["10.0.0.2"]}

    assert ready_addresses([slice_of(pod("10.0.0.1", ready=None), unsaid)], 1) == [
        "10.0.0.1:50053",
        "10.0.0.2:50053",
    ]


def test_slices_without_endpoints_or_ports_are_read() -> None:
    empty = slice_of(endpoints=None)
    without_ports = slice_of(pod("10.0.0.1"), ports=None)

    assert ready_addresses([empty, without_ports], 7) == ["10.0.0.1:7"]


def test_a_pod_in_two_slices_is_there_once() -> None:
    one = pod("10.0.0.1", "base-a")

    assert ready_addresses([slice_of(one), slice_of(one)], 1) == ["10.0.0.1:50053"]


def test_a_pod_with_two_addresses_is_called_by_the_older_protocol() -> None:
    both = [
        slice_of(pod("fd00::1", "base-a"), pod("fd00::2", "base-b"), kind="IPv6"),
        slice_of(pod("10.0.0.1", "base-a")),
        slice_of(pod("example.org", "base-c"), kind="FQDN"),
    ]

    assert ready_addresses(both, 1) == ["10.0.0.1:50053", "[fd00::2]:50053"]
