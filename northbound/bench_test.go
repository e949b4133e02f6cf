package northbound

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
)

// BenchmarkListPorts1000 measures an answer with 1,000 ports, without a network in between.
func BenchmarkListPorts1000(b *testing.B) {
	a := withQuotas(b, sqlite(b), &Quotas{Default: unlimited})
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/16", "")
	port := fmt.Sprintf(`{"network_id": %q}`, net)
	for range 10 {
		a.must(http.StatusCreated, blue, "POST", "/v2.0/ports", `{"ports": [`+strings.Repeat(port+",", 99)+port+`]}`)
	}
	for _, query := range []string{"", "?network_id=" + net, "?fields=id", "?limit=10&sort_key=name&sort_dir=asc"} {
		for _, project := range []string{"", "blue"} {
			name := "ports" + strings.SplitN(query, "=", 2)[0] + "/" + strings.Replace("admin-"+project, "admin-blue", "tenant", 1)
			b.Run(strings.TrimSuffix(name, "-"), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					w := httptest.NewRecorder()
					r := httptest.NewRequest("GET", "/v2.0/ports"+query, nil)
					r.Header.Set("X-Project-Id", project)
					a.handler.ServeHTTP(w, r)
					if w.Code != http.StatusOK {
						b.Fatal(w.Body)
					}
				}
			})
		}
	}
}

// BenchmarkCreatePort measures POST /ports by 8 clients at once, each on its
// connection, with SQLite and the log written as planck serve does.
func BenchmarkCreatePort(b *testing.B) {
	a := newAPIOn(b, "sqlite://"+b.TempDir()+"/planck.db", Options{
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Quotas: &Quotas{Default: unlimited},
	})
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/8", "")
	body := fmt.Sprintf(`{"port": {"network_id": %q, "device_owner": "compute:nova"}}`, net)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	b.ReportAllocs()
	b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			res, err := client.Post(a.url+"/v2.0/ports", "application/json", strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != http.StatusCreated {
				b.Errorf("status %d, %v", res.StatusCode, err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ports/s")
}
