package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const listReply = `[
 {"id": "a1", "name": "net1", "n": 5, "pools": [{"start": "10.0.0.2", "end": "10.0.0.254"}, {"start": "10.0.1.2", "end": "10.0.1.9"}], "up": true},
 {"id": "b2", "name": "网络 \"二\" <&>", "n": 10, "pools": [], "up": null}]`

func listTable(t *testing.T, line string) (*arguments, table) {
	t.Helper()
	args, err := parseLine(t, "net-list "+line)
	if err != nil {
		t.Fatal(err)
	}
	v, err := decodeJSON([]byte(listReply))
	if err != nil {
		t.Fatal(err)
	}
	r := &resource{columns: []string{"name", "n", "pools", "missing", "up"}}
	return args, r.makeTable(objects(v), args)
}

func TestListFormats(t *testing.T) {
	tests := map[string]string{
		"": `+---------------+----+--------------------------------------------+------+
| name          |  n | pools                                      | up   |
+---------------+----+--------------------------------------------+------+
| net1          |  5 | {"start": "10.0.0.2", "end": "10.0.0.254"} | True |
|               |    | {"start": "10.0.1.2", "end": "10.0.1.9"}   |      |
| 网络 "二" <&> | 10 |                                            |      |
+---------------+----+--------------------------------------------+------+
`,
		"-c id -c nothing": `+----+
| id |
+----+
| a1 |
| b2 |
+----+
`,
		"-f value -c name -c pools": `net1 [{"start": "10.0.0.2", "end": "10.0.0.254"}, {"start": "10.0.1.2", "end": "10.0.1.9"}]
网络 "二" <&> []
`,
		"-f csv -c name -c n": `"name","n"
"net1",5
"网络 ""二"" <&>",10
`,
		"-f csv --quote none -c id -c n":    "id,n\na1,5\nb2,10\n",
		"-f csv --quote all -c id -c n":     "\"id\",\"n\"\n\"a1\",\"5\"\n\"b2\",\"10\"\n",
		"-f csv --quote minimal -c id -c n": "id,n\na1,5\nb2,10\n",
		"-f yaml -c id -c up": `- id: "a1"
  up: true
- id: "b2"
  up: null
`,
		"-f json -c name -c n": `[
  {
    "name": "net1",
    "n": 5
  },
  {
    "name": "网络 \"二\" <&>",
    "n": 10
  }
]
`,
	}
	for line, want := range tests {
		t.Run(line, func(t *testing.T) {
			args, list := listTable(t, line)
			var b strings.Builder
			if err := writeList(&b, args, list); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, b.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEmptyListIsAnEmptyLine(t *testing.T) {
	for line, want := range map[string]string{"": "\n", "-f json": "[]\n", "-f value": "", "-f yaml": "[]\n"} {
		args, err := parseLine(t, "net-list "+line)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := writeList(&b, args, (&resource{columns: []string{"id"}}).makeTable(nil, args)); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("%q prints %q, want %q", line, b.String(), want)
		}
	}
}

const showReply = `{"name": "net\u001b[31m1", "id": "a1", "admin_state_up": true, "router:external": false, "subnets": ["s1", "s2"],
 "host_routes": [{"nexthop": "10.0.0.1", "destination": "10.1.0.0/16"}], "gateway_ip": null, "mtu": 1458, "q": "a\"$b` + "`" + `\\"}`

func TestShowFormats(t *testing.T) {
	tests := map[string]string{
		"": `+-----------------+-------------------------------------------------------+
| Field           | Value                                                 |
+-----------------+-------------------------------------------------------+
| admin_state_up  | True                                                  |
| gateway_ip      |                                                       |
| host_routes     | {"nexthop": "10.0.0.1", "destination": "10.1.0.0/16"} |
| id              | a1                                                    |
| mtu             | 1458                                                  |
| name            | net` + "\uFFFD" + `[31m1                                             |
| q               | a"$b` + "`" + `\                                                |
| router:external | False                                                 |
| subnets         | s1                                                    |
|                 | s2                                                    |
+-----------------+-------------------------------------------------------+
`,
		"-f value -c id":                       "a1\n",
		"-f value --variable mtu":              "1458\n",
		"-f value -c subnets":                  "[\"s1\", \"s2\"]\n",
		"-f shell -c id -c router:external":    "id=\"a1\"\nrouter_external=\"False\"\n",
		"-f shell -c q --prefix x_":            "x_q=\"a\\\"\\$b\\`\\\\\"\n",
		"-f yaml -c router:external -c mtu":    "mtu: 1458\nrouter:external: false\n",
		"-f json -c id -c gateway_ip -c other": "{\n  \"gateway_ip\": null,\n  \"id\": \"a1\"\n}\n",
	}
	for line, want := range tests {
		t.Run(line, func(t *testing.T) {
			args, err := parseLine(t, "net-show x "+line)
			if err != nil {
				t.Fatal(err)
			}
			args.given["column"] = append(args.given["column"], args.given["variable"]...)
			v, err := decodeJSON([]byte(showReply))
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := writeShow(&b, args, v.(object)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, b.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestShowRefusesColumnsThatAreNotThere(t *testing.T) {
	args, err := parseLine(t, "net-show x -c nothing")
	if err != nil {
		t.Fatal(err)
	}
	err = writeShow(&strings.Builder{}, args, object{{"id", "a1"}})
	if err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Fatalf("got %v", err)
	}
}

func TestRepliesThatAreNotJSONAreRefused(t *testing.T) {
	for _, text := range []string{"", "{", "[1,", `{"a":1} x`, `{"a" 1}`, strings.Repeat("[", 10000)} {
		if v, err := decodeJSON([]byte(text)); err == nil {
			t.Errorf("%.20q was read as %v", text, v)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(listReply))
	f.Add([]byte(showReply))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeJSON(data)
		if err != nil {
			return
		}
		if text := jsonText(v); !json.Valid([]byte(text)) {
			t.Fatalf("%q became %q", data, text)
		}
		cell(v)
	})
}
