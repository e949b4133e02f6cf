package flows

import (
	"strings"
	"testing"
)

// operatorsFlows have much that we have no name for.
var operatorsFlows = []string{
	"table=1,priority=1,ip actions=learn(table=2,hard_timeout=60,priority=5,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),NORMAL",
	"table=1,priority=2,mpls,mpls_label=5,mpls_bos=1 actions=dec_mpls_ttl,pop_mpls:0x0800,output:2",
	"table=1,priority=3,mplsm,in_port=1,reg0=1,metadata=5 actions=drop",
	"table=1,priority=4,in_port=1 actions=push_mpls:0x8847,set_field:10->mpls_label,output:2",
	"table=1,priority=5 actions=multipath(eth_src,50,modulo_n,1,0,NXM_NX_REG0[]),output:NXM_NX_REG0[]",
	"table=1,priority=6 actions=bundle(eth_src,0,hrw,ofport,members:1,2)",
	"table=1,priority=7 actions=note:01.02.03.04,exit",
	"table=1,priority=8 actions=controller(reason=no_match,max_len=128,id=5,userdata=01.02.03)",
	"table=1,priority=9 actions=check_pkt_larger(1500)->NXM_NX_REG0[0],push:NXM_NX_REG0[],pop:NXM_NX_REG1[]",
	"table=1,priority=10,tcp actions=fin_timeout(idle_timeout=5),enqueue:1:2",
	"table=1,priority=11 actions=mod_vlan_vid:5,mod_vlan_pcp:3,output:1",
	"table=1,priority=12 actions=sample(probability=100,collector_set_id=1)",
	"table=1,priority=13,ip actions=clone(learn(table=2,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]),output:1),ct(commit,exec(load:1->NXM_NX_CT_MARK[0..3]))",
	"table=1,priority=14,dl_type=0x894f,nsh_spi=5,nsh_si=255 actions=drop",
	"table=1,priority=15,dl_type=0x894f,nsh_np=3,reg3=7 actions=drop",
	"table=1,priority=16,tun_gbp_id=7,tun_flags=oam,tun_id=3,tun_src=10.0.0.1 actions=drop",
	"table=1,priority=17,actset_output=2 actions=clear_actions,write_actions(set_field:5->reg0,output:2),goto_table:2",
	"table=1,priority=18,vlan_tci=0x1123/0x1fff,dl_src=fe:ff:ff:ff:ff:ff/fe:ff:ff:ff:ff:ff,ipv6,ipv6_label=0x12345 actions=set_field:0x7->xreg0,resubmit(1,2)",
	"table=1,priority=19,icmp6,icmp_type=136,nd_options_type=2 actions=output(port=1,max_len=100)",
	"table=1,priority=21,ip actions=ct(commit,table=3,nat(src=10.0.0.1-10.0.0.1:5-5)),ct(commit,nat(dst=10.0.0.1-10.0.0.1)),output:1",
	"table=1,priority=20,idle_timeout=300,send_flow_rem,no_packet_counts,udp,nw_frag=not_later,nw_ttl=1 actions=dec_ttl(1,2),set_queue:3,pop_queue",
}

// A host that joins keeps the flows of its operator: they are read, kept as text
// and put back.
func TestForeignFlowsSurviveAsTextAndBytes(t *testing.T) {
	s := startSwitch(t)
	for _, text := range operatorsFlows {
		s.run("ovs-ofctl", "-O", "OpenFlow13", "add-flow", "unix:"+s.path("br0.mgmt"), text)
	}
	before := s.flows()
	if len(before) != len(operatorsFlows) {
		t.Fatalf("the dump has %d flows, want %d", len(before), len(operatorsFlows))
	}
	kept := map[Key]Flow{}
	for _, f := range before {
		again, err := ParseFlow(f.String())
		if err != nil {
			t.Errorf("can't read our own text: %s", err)
			continue
		}
		if again != f.Flow {
			t.Errorf("%s reads as %s", &f.Flow, &again)
		}
		kept[again.Key()] = again
	}

	if _, _, err := s.request(func(b []byte, xid uint32) []byte { return AppendFlowMod(b, xid, FlowDelete, &Flow{Table: AllTables}) }); err != nil {
		t.Fatal(err)
	}
	for _, f := range kept {
		if err := s.add(&f); err != nil {
			t.Errorf("putting back %s: %s", &f, err)
		}
	}
	after := s.flows()
	for k, f := range before {
		if g, ok := after[k]; !ok || !g.equal(&f.Flow) {
			t.Errorf("%s is not back as it was: %s", &f.Flow, &g.Flow)
		}
	}
}

func TestAMatchWithUnknownFieldsReadsBackOnlyAsItIs(t *testing.T) {
	const text = "in_port=1,dl_type=0x8847,oxm=800000040000000180000a02884780004404000000058000480101 actions=drop"
	f, err := ParseFlow(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.String(); got != text {
		t.Errorf("%s reads as %s", text, got)
	}
	for _, changed := range []string{
		strings.Replace(text, "in_port=1", "in_port=2", 1),
		strings.Replace(text, "in_port=1,", "", 1),
		strings.Replace(text, "0101 ", "01 ", 1),
		strings.Replace(text, "oxm=8", "oxm=x", 1),
	} {
		if f, err := ParseFlow(changed); err == nil {
			t.Errorf("%s reads as %s", changed, &f)
		}
	}
}
