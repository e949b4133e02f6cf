# The hypervisor of the lab, as a driver of nova-compute. Guests are plugged by
# the test. As libvirt's driver it starts a guest only when Nova was told that
# the interfaces are wired, and moves one when they are wired at its destination.
import contextlib

import eventlet
from oslo_log import log as logging

import nova.conf
from nova import exception
from nova.virt import fake

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


def failed(event, instance):
    raise exception.VirtualInterfaceCreateException()


class Driver(fake.FakeDriver):
    @contextlib.contextmanager
    def _wired(self, instance, ports, waits):
        events = [("network-vif-plugged", port) for port in ports]
        try:
            with self.virtapi.wait_for_instance_event(
                    instance, events, deadline=CONF.vif_plugging_timeout, error_callback=failed):
                yield
                for port in ports:
                    LOG.info("the guest %s port %s", waits, port, instance=instance)
        except eventlet.timeout.Timeout:
            raise exception.VirtualInterfaceCreateException()

    def spawn(self, context, instance, *args, network_info=None, **kwargs):
        ports = [vif["id"] for vif in network_info or [] if vif.get("active", True) is False]
        with self._wired(instance, ports, "waits for"):
            super().spawn(context, instance, *args, network_info=network_info, **kwargs)

    def live_migration(self, context, instance, dest, post_method, recover_method,
                       block_migration=False, migrate_data=None):
        try:
            with self._wired(instance, [vif.port_id for vif in migrate_data.vifs], "moves with"):
                pass
        except exception.VirtualInterfaceCreateException:
            recover_method(context, instance, dest, migrate_data)
            return
        post_method(context, instance, dest, block_migration, migrate_data)

    def post_live_migration(self, context, instance, block_device_info, migrate_data=None):
        self.destroy(context, instance, network_info=None, block_device_info=block_device_info)
