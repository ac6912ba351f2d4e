package initmode

import (
	"slices"
	"strings"
)

// What an image's init would do to the host's network, if that is the
// container's: services that set up interfaces, addresses, routes or filters as
// soon as they start. Servers are not among them, nor what uses the network.

// networkService is a service that acts on the network, with its other names.
type networkService struct {
	// names are those of its init scripts and of directories of runit; with
	// ".service" those of units.
	names []string
	// units are what else starts it: sockets, templates, names on D-Bus.
	units []string
}

var networkServices = []networkService{
	// Interfaces and addresses.
	{
		[]string{"systemd-networkd", "systemd-networkd-persistent-storage"},
		[]string{
			"systemd-networkd.socket", "systemd-networkd-varlink.socket", "systemd-networkd-varlink-metrics.socket",
			"systemd-networkd-resolve-hook.socket", "dbus-org.freedesktop.network1.service",
		},
	},
	{
		[]string{"NetworkManager", "networkmanager", "network-manager", "NetworkManager-dispatcher", "NetworkManager-initrd", "nm-cloud-setup"},
		[]string{"dbus-org.freedesktop.NetworkManager.service", "dbus-org.freedesktop.nm-dispatcher.service", "nm-cloud-setup.timer"},
	},
	{[]string{"networking", "network", "ifupdown", "ifupdown-pre", "ifplugd", "loopback", "staticroute"}, []string{"ifup@.service"}},
	{[]string{"dhcpcd", "dhcpcd5", "dhclient", "udhcpc", "dibbler-client", "wide-dhcpv6-client"}, []string{"dhcpcd@.service", "dhclient@.service"}},
	{[]string{"connman", "connmand", "connman-vpn"}, []string{"dbus-net.connman.service", "net.connman.vpn.service"}},
	{
		[]string{"wicked", "wickedd", "wickedd-auto4", "wickedd-dhcp4", "wickedd-dhcp6", "wickedd-nanny", "wicd"},
		[]string{"wicked@.service", "wickedd-pppd@.service"},
	},
	{[]string{"netplan-ovs-cleanup", "netplan-sriov-apply", "netplan-sriov-rebind", "netplan-configure"}, nil},
	{[]string{"cloud-init", "cloud-init-local", "cloud-init-main", "cloud-init-network"}, nil},
	{
		[]string{"wpa_supplicant", "wpa_cli", "wpasupplicant"},
		[]string{
			"wpa_supplicant@.service", "wpa_supplicant-nl80211@.service", "wpa_supplicant-wired@.service",
			"dbus-fi.w1.wpa_supplicant1.service", "dbus-fi.epitest.hostap.WPASupplicant.service",
		},
	},
	{[]string{"iwd"}, []string{"dbus-net.connman.iwd.service"}},
	{[]string{"hostapd"}, []string{"hostapd@.service"}},
	{[]string{"ModemManager", "modemmanager"}, []string{"dbus-org.freedesktop.ModemManager1.service"}},
	{[]string{"openvswitch", "openvswitch-switch", "ovs-vswitchd"}, []string{"ovs-vswitchd@.service"}},
	{nil, []string{"teamd@.service"}},
	// Filters.
	{[]string{"nftables", "nftables-load"}, nil},
	{[]string{"iptables", "ip6tables", "arptables", "ebtables", "ipset", "netfilter-persistent", "iptables-persistent"}, nil},
	{[]string{"ufw"}, nil},
	{[]string{"firewalld"}, []string{"dbus-org.fedoraproject.FirewallD1.service"}},
	{[]string{"shorewall", "shorewall6", "shorewall-lite", "shorewall6-lite", "shorewall-init"}, nil},
	{[]string{"ferm", "firehol", "fireqos", "awall"}, nil},
	{[]string{"fail2ban", "sshguard"}, nil},
	// Addresses and routes that others announce, and tunnels.
	{[]string{"keepalived", "ucarp", "vrrpd"}, nil},
	{[]string{"frr", "bird", "bird6", "quagga", "zebra", "babeld", "olsrd"}, nil},
	{[]string{"wg-quick"}, []string{"wg-quick@.service"}},
	{[]string{"openvpn"}, []string{"openvpn@.service", "openvpn-client@.service", "openvpn-server@.service"}},
	{[]string{"strongswan", "strongswan-starter", "ipsec", "libreswan"}, nil},
	{[]string{"tinc"}, []string{"tinc@.service"}},
	{[]string{"tailscaled", "zerotier-one", "miredo", "aiccu"}, nil},
	// Settings of the network among all others.
	{[]string{"systemd-sysctl", "procps", "sysctl"}, nil},
}

// networkPrefixes begin names that hold an interface: OpenRC's net.eth0, runit's
// dhcpcd-eth0.
var networkPrefixes = []string{"net.", "dhcpcd-"}

// networkPrograms act on the network when an inittab runs them.
var networkPrograms = []string{"ifconfig", "ifup", "ip", "route", "dhclient", "dhcpcd", "udhcpc", "nft", "iptables-restore", "ip6tables-restore"}

// netplanUnits is a directory for all units whose name begins with
// netplanPrefix, which its generator makes for each interface (systemd.unit(5),
// drop-ins; from systemd 239 on).
const (
	netplanPrefix = "netplan-"
	netplanUnits  = netplanPrefix + ".service.d"
)

// foreignServices are those that must not run since the network is the host's,
// but for those that were asked for by one of their names. units are those of
// systemd.
func (req *Request) foreignServices() (names, units []string) {
	if !req.HostNetwork {
		return nil, nil
	}
	for _, s := range networkServices {
		if slices.ContainsFunc(s.names, req.wants) || slices.ContainsFunc(s.units, req.wantsUnit) {
			continue
		}
		names = append(names, s.names...)
		units = append(units, s.units...)
		for _, name := range s.names {
			units = append(units, name+".service")
		}
	}
	return names, units
}

// wantsUnit reports whether a unit, or an instance of a template, was asked for.
func (req *Request) wantsUnit(unit string) bool {
	return slices.ContainsFunc(req.Options.Services, func(service string) bool {
		name := unitName(service)
		t, ok := template(name)
		return name == unit || ok && t == unit
	})
}

// ofInterfaces are the entries that are for one interface each, unless they were
// asked for.
func (req *Request) ofInterfaces(entries []string) []string {
	if !req.HostNetwork {
		return nil
	}
	return slices.DeleteFunc(entries, func(name string) bool {
		return req.wants(name) || !slices.ContainsFunc(networkPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	})
}

// foreignPrograms are what an inittab must not run.
func (req *Request) foreignPrograms() []string {
	if !req.HostNetwork {
		return nil
	}
	names, _ := req.foreignServices()
	return append(names, req.unwanted(slices.Clone(networkPrograms))...)
}
