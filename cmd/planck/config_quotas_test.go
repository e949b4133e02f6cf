package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/northbound"
)

func TestQuotasOfFiles(t *testing.T) {
	c, _ := load(t, "")
	if diff := cmp.Diff(northbound.DefaultQuotas(), c.quotas()); diff != "" {
		t.Errorf("without a file (-want +got):\n%s", diff)
	}
	guide, _, err := LoadConfig([]string{"testdata/guide/quantum.conf"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	q := guide.quotas()
	if q.Fixed || q.Limits["network"] != 10 || q.Limits["subnet"] != 10 || q.Limits["port"] != 50 || q.Limits["router"] != 10 || q.Limits["floatingip"] != 50 {
		t.Errorf("of the guide's file: %+v", q)
	}
	conf, _ := load(t, "[QUOTAS]\nquota_driver = quantum.quota.ConfDriver\nquota_items = network,port\ndefault_quota = 3\nquota_network = -1\n")
	q = conf.quotas()
	if !q.Fixed || q.Default != 3 || q.Limits["network"] != -1 || !cmp.Equal(q.Off, []string{"subnet"}) {
		t.Errorf("ConfDriver: %+v", q)
	}
	null, _ := load(t, "[quotas]\nquota_driver = neutron.db.quota.driver_null.DbQuotaDriverNull\nquota_network = 5\n")
	if diff := cmp.Diff(&northbound.Quotas{Default: -1, Fixed: true}, null.quotas()); diff != "" {
		t.Errorf("DbQuotaDriverNull (-want +got):\n%s", diff)
	}
}
