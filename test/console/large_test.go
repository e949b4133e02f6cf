package console

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// largeCloud has ports on 20 networks, two on each of ten routers.
func largeCloud(tb testing.TB, ports int) *cloud {
	tb.Helper()
	c := newCloud(tb, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n[QUOTAS]\nquota_port = -1\nquota_network = -1\nquota_router = -1\n")
	public, _ := c.network("", "public", "203.0.113.0/24", object{
		"router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1",
	})
	const networks = 20
	var router string
	for i := range networks {
		project := fmt.Sprintf("project-%d", i/2)
		id, subnet := c.network(project, fmt.Sprintf("net-%d", i), fmt.Sprintf("10.0.%d.0/24", i), nil)
		if i%2 == 0 {
			router = c.create("router", "routers", object{
				"name": fmt.Sprintf("router-%d", i/2), "tenant_id": project, "external_gateway_info": object{"network_id": public},
			})["id"].(string)
		}
		c.call(http.MethodPut, "/v2.0/routers/"+router+"/add_router_interface", object{"subnet_id": subnet}, http.StatusOK)
		var bodies []object
		for j := range ports / networks {
			bodies = append(bodies, object{"network_id": id, "name": fmt.Sprintf("vm-%d-%d", i, j), "device_owner": "compute:nova", "tenant_id": project})
		}
		c.call(http.MethodPost, "/v2.0/ports", object{"ports": bodies}, http.StatusCreated)
	}
	return c
}

func TestConsoleFoldsManyVMs(t *testing.T) {
	c := largeCloud(t, 2000)
	p := newPage(t, c.url)
	p.open("")
	p.says(".head", "2,000 VM ports: 2,000 DOWN")
	p.says(".fold", "100 VM ports: 100 DOWN")
	p.until("no VM is drawn by itself", "document.querySelectorAll('.topology .vm:not(.fold)').length === 0")
	p.fits("a large cloud")
	p.size(360, 800)
	p.fits("a large cloud on a telephone")
	p.size(1280, 800)
	p.press("j")
	evaluate[bool](p, "document.querySelector('.fold').focus(); true")
	p.press(enter)
	p.until("a network is opened", "document.querySelectorAll('.topology .vm:not(.fold)').length === 100")
	p.fits("an opened network")
	p.press(enter)
	p.until("it is closed", "document.querySelectorAll('.topology .vm:not(.fold)').length === 0")
	p.open("#/ports?filter=vm-19-")
	p.says("[role=status]", "100 of ")
	p.until("a page of the list has 50 rows", "document.querySelectorAll('tbody tr').length === 50")
	p.press("/", "v", "m", "-", "1", "9", "-", "9", "9")
	p.says("#found [aria-selected=true]", "vm-19-99")
}

// busy is for how many seconds the tab has run scripts, and laid out what they
// made, since it was opened.
func (p *page) busy() (seconds float64) {
	p.Helper()
	metrics, err := chromedp.Call(p.ctx, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		p.Fatal(err)
	}
	for _, m := range metrics.Metrics {
		switch m.Name {
		case "ScriptDuration", "LayoutDuration", "RecalcStyleDuration":
			seconds += m.Value
		}
	}
	return seconds
}

func BenchmarkConsoleWith2000Ports(b *testing.B) {
	c := largeCloud(b, 2000)
	var painted, first, change float64
	for b.Loop() {
		p := newPage(b, c.url)
		send(p, performance.Enable, performance.EnableParams{})
		p.open("")
		p.until("it is live", "document.getElementById('live')?.textContent.includes('live')")
		painted += evaluate[float64](p, "performance.getEntriesByName('painted')[0].startTime / 1000")
		busy := p.busy()
		first += busy
		revision := evaluate[string](p, "document.getElementById('live').textContent")
		c.network("blue", "one-more", "10.9.0.0/24", nil)
		p.until("the change is there", "document.getElementById('live').textContent !== "+quoted(revision))
		change += p.busy() - busy
	}
	n := float64(b.N)
	b.ReportMetric(painted/n, "s/first-paint")
	b.ReportMetric(first/n, "s-script/first-paint")
	b.ReportMetric(change/n, "s-script/change")
	b.ReportMetric(0, "ns/op")
}
