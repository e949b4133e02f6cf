package flows

import (
	"strings"
	"testing"
)

func TestParseFlowReadsWhatOperatorsWrite(t *testing.T) {
	for text, want := range map[string]string{
		"actions=NORMAL":                                                                                                    "actions=NORMAL",
		"table=0,priority=0 actions=drop":                                                                                   "priority=0 actions=drop",
		"tcp,tp_dst=80,actions=output:2":                                                                                    "tcp,tp_dst=80 actions=output:2",
		"priority=5,tcp,tcp_dst=80,nw_src=10.0.0.0/255.0.0.0 actions=2":                                                     "priority=5,tcp,nw_src=10.0.0.0/8,tp_dst=80 actions=output:2",
		"udp6,udp_dst=0x10/0xfff0 actions=LOCAL":                                                                            "udp6,tp_dst=0x10/0xfff0 actions=LOCAL",
		"ip,nw_proto=17,tp_src=53 actions=CONTROLLER":                                                                       "udp,tp_src=53 actions=CONTROLLER:65535",
		"dl_type=0x0800,ip_proto=6,tcp_flags=syn|ack actions=controller(max_len=128)":                                       "tcp,tcp_flags=syn|ack actions=CONTROLLER:128",
		"arp,nw_dst=10.0.0.1,nw_proto=1 actions=flood":                                                                      "arp,arp_tpa=10.0.0.1,arp_op=1 actions=FLOOD",
		"icmp6,icmp_type=135,icmp_code=0,nd_target=fe80::1 actions=all":                                                     "icmp6,icmp_type=135,icmp_code=0,nd_target=fe80::1 actions=ALL",
		"dl_vlan=0xffff actions=strip_vlan,in_port":                                                                         "vlan_tci=0x0000/0x1fff actions=pop_vlan,IN_PORT",
		"vlan_tci=0x1000/0x1000,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00 actions=normal":                                  "vlan_tci=0x1000/0x1000,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00 actions=NORMAL",
		"vlan_tci=0 actions=drop":                                                                                           "vlan_tci=0x0000/0x1fff actions=drop",
		"dl_vlan=7,dl_vlan_pcp=2 actions=drop":                                                                              "dl_vlan=7,dl_vlan_pcp=2 actions=drop",
		"dl_vlan_pcp=2 actions=drop":                                                                                        "dl_vlan_pcp=2 actions=drop",
		"ip,nw_tos=32,ip_ecn=1,ip_frag=no actions=mod_nw_dst:10.0.0.1,mod_dl_dst:00:00:00:00:00:01":                         "ip,nw_tos=32,nw_ecn=1,nw_frag=no actions=set_field:10.0.0.1->ip_dst,set_field:00:00:00:00:00:01->eth_dst",
		"xxreg0=0x1,ct_state=+trk+new-est,ct_zone=5 actions=set_tunnel:5":                                                   "ct_state=+new-est+trk,ct_zone=5,reg0=0,reg1=0,reg2=0,reg3=0x1 actions=set_field:0x5->tun_id",
		"ct_state=trk|est,tun_src=10.0.0.1 actions=move:NXM_OF_ETH_SRC[]->eth_dst[]":                                        "ct_state=est|trk,tun_src=10.0.0.1 actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]",
		"in_port=LOCAL actions=resubmit(,5),resubmit(1,6),resubmit:7":                                                       "in_port=LOCAL actions=resubmit(,5),resubmit(1,6),resubmit:7",
		"actions=load:0x1->reg0[3],output:reg1[0..15]":                                                                      "actions=load:0x1->NXM_NX_REG0[3],output:NXM_NX_REG1[0..15]",
		"ip actions=ct(commit,nat(src=10.0.0.1-10.0.0.9:100-200,random),zone=reg4[0..15],exec(load:0x1->NXM_NX_CT_MARK[]))": "ip actions=ct(commit,zone=NXM_NX_REG4[0..15],nat(src=10.0.0.1-10.0.0.9:100-200,random),exec(load:0x1->NXM_NX_CT_MARK[]))",
		"ipv6 actions=ct(nat(dst=[fd00::1]:80),table=3)":                                                                    "ipv6 actions=ct(table=3,nat(dst=[fd00::1]:80))",
		" cookie=0x12, duration=5.5s, table=9, n_packets=1, n_bytes=2, idle_timeout=3, hard_timeout=4, idle_age=1, send_flow_rem priority=7,ip actions=goto_table:10": "cookie=0x12, table=9, idle_timeout=3, hard_timeout=4, send_flow_rem priority=7,ip actions=goto_table:10",
		"actions=write_metadata:0x10,meter:4,goto_table:3": "actions=meter:4,write_metadata:0x10,goto_table:3",
	} {
		f, err := ParseFlow(text)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := f.String(); got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestParseFlowNamesWhatItDoesNotKnow(t *testing.T) {
	for text, want := range map[string]string{
		"priority=5":                                  "no actions=",
		"":                                            "no actions=",
		"priority=70000 actions=drop":                 "priority=70000: not a number of 16 bits",
		"table=x actions=drop":                        "table=x",
		"mpls actions=drop":                           `unknown word "mpls"`,
		"tun_metadata0=1 actions=drop":                `unknown field "tun_metadata0"`,
		"tp_dst=80 actions=drop":                      "tp_dst without a protocol",
		"tcp_dst=80 actions=drop":                     "tcp_dst without tcp",
		"arp,nw_src=10.0.0.300 actions=drop":          `"10.0.0.300" is not a value`,
		"ip,nw_src=fe80::1 actions=drop":              `"fe80::1" is not a value`,
		"ip,arp actions=drop":                         "two terms for eth_type",
		"in_port=eth0 actions=drop":                   `unknown port "eth0"`,
		"dl_src=00:00:00:00:00 actions=drop":          "is not a value",
		"ct_state=+foo actions=drop":                  `unknown flag "foo"`,
		"reg0=0x1ffffffff actions=drop":               "reg0 has 32 bits",
		"reg16=1 actions=drop":                        `unknown field "reg16"`,
		"dl_vlan=5000 actions=drop":                   "out of range",
		"actions=learn(table=1)":                      `unknown action "learn"`,
		"actions=fly":                                 `unknown action "fly"`,
		"actions=output:p1":                           `unknown action "p1"`,
		"actions=set_field:1->nothing":                `unknown field "nothing"`,
		"actions=set_field:1":                         "unknown field",
		"actions=clone(drop":                          "parentheses",
		"actions=ct(commit,foo)":                      `unknown word "foo"`,
		"actions=goto_table:300":                      "not a number of 8 bits",
		"actions=goto_table:3,goto_table:4":           "two instructions",
		"actions=move:NXM_NX_REG0[]->NXM_NX_XXREG0[]": "32 bits to 128",
		"actions=load:0x10->NXM_NX_REG0[0..3]":        "not a number of 4 bits",
		"actions=load:0->NXM_NX_REG0[40]":             "has no bits",
		"actions=check_pkt_larger(9)->NXM_NX_REG0[]":  "not a length and one bit",
		"actions=check_pkt_larger(x)->NXM_NX_REG0[1]": "not a length and one bit",
		"actions=conjunction(1,2)":                    "not an id,k/n",
		"actions=drop,output:1":                       `unknown action "drop"`,
	} {
		if f, err := ParseFlow(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %s, %v, want an error with %q", text, &f, err, want)
		}
	}
}

func TestTextOfAWholeSet(t *testing.T) {
	s := setOf(t, "table=1,priority=5,arp actions=output:1", "priority=1 actions=goto_table:1", "table=1,priority=7 actions=drop",
		NewMeterPPS(2, 10, 5), NewGroup(1, GroupAll, Bucket{Actions: []Action{Output(1)}}))
	want := `meter=2 pktps burst stats bands= type=drop rate=10 burst_size=5
group_id=1,type=all,bucket=actions=output:1
table=Zero, priority=1 actions=goto_table:1
table=One, priority=7 actions=drop
table=One, priority=5,arp actions=output:1
`
	if got := s.Text(func(n uint8) string { return []string{"Zero", "One"}[n] }); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
