"""All checks that no schema makes, in the order they are reported."""

from collections.abc import Callable, Iterator

from k8s.checks import chips, jobs, network, pods, references, settings
from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest

Check = Callable[[Objects], Iterator[str]]
CHECKS: tuple[Check, ...] = (
    references.no_object_is_there_twice,
    references.all_are_in_the_overlays_namespace,
    references.selectors_select_their_own_pods,
    references.deployments_do_not_share_pods,
    references.services_reach_a_port,
    references.port_names_are_short,
    references.budgets_can_be_kept,
    references.service_accounts_are_there,
    references.role_bindings_bind_what_is_there,
    references.mounts_have_volumes,
    references.claims_can_be_bound,
    references.addresses_name_a_service,
    references.autoscalers_have_a_target_to_themselves,
    pods.pods_have_no_rights,
    pods.tokens_are_for_those_who_have_a_role,
    pods.resources_are_said_and_kept,
    pods.images_are_pinned,
    pods.probes_ask_the_server,
    pods.starting_may_take_its_time,
    pods.pods_end_within_their_grace,
    pods.only_jobs_write_what_servers_run,
    pods.jobs_compile_what_servers_run,
    jobs.indexed_jobs_make_the_whole,
    jobs.failure_policies_can_be_kept,
    chips.chips_come_with_their_shape,
    chips.machines_have_the_chips,
    chips.chips_are_used,
    chips.taints_are_tolerated,
    chips.pods_fit_their_node,
    chips.roll_outs_do_not_wait_for_chips,
    chips.accelerators_do_not_fall_back,
    network.policies_allow_the_call_graph_and_no_more,
    network.policies_govern_somebody,
    settings.variables_are_settings,
    settings.ports_are_the_servers,
)


def mistakes(manifests: list[Manifest]) -> list[str]:
    """Returns what is wrong between the objects of one overlay, one line each."""
    objects = Objects(manifests)
    return [message for check in CHECKS for message in check(objects)]
