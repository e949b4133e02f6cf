package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// schemaFile is that of the Open vSwitch that is installed.
const schemaFile = "/usr/share/openvswitch/vswitch.ovsschema"

// schema is what all databases have in common.
type schema struct {
	text   json.RawMessage
	tables map[string]*table
}

type table struct {
	name    string
	root    bool   // its rows stay though nothing refers to them
	unique  string // the column that tells its rows apart, "" for none
	columns []*column
	byName  map[string]*column
}

type column struct {
	name     string
	isMap    bool
	min, max int // max is -1 for no limit
	refTable string
	initial  datum // of a new row
}

// scalar columns have always one value.
func (c *column) scalar() bool { return !c.isMap && c.min == 1 && c.max == 1 }

// plain columns change as a whole, the others value by value.
func (c *column) plain() bool { return !c.isMap && c.max == 1 }

var loadSchema = sync.OnceValues(func() (*schema, error) {
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		return nil, err
	}
	var raw struct {
		Tables map[string]struct {
			IsRoot  bool
			Indexes [][]string
			Columns map[string]struct{ Type json.RawMessage }
		}
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", schemaFile, err)
	}
	s := &schema{text: text, tables: map[string]*table{}}
	for name, t := range raw.Tables {
		to := &table{name: name, root: t.IsRoot, byName: map[string]*column{}}
		if len(t.Indexes) == 1 && len(t.Indexes[0]) == 1 {
			to.unique = t.Indexes[0][0]
		}
		for name, c := range t.Columns {
			col, err := readColumn(name, c.Type)
			if err != nil {
				return nil, fmt.Errorf("%s: %s.%s: %w", schemaFile, to.name, name, err)
			}
			to.columns = append(to.columns, col)
			to.byName[name] = col
		}
		s.tables[name] = to
	}
	return s, nil
})

// readColumn reads a type of RFC 7047, 3.2.
func readColumn(name string, raw json.RawMessage) (*column, error) {
	var kind struct {
		Key, Value json.RawMessage
		Min        *int
		Max        any
	}
	if raw[0] == '"' {
		kind.Key = raw
	} else if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, err
	}
	c := &column{name: name, min: 1, max: 1, isMap: kind.Value != nil}
	if kind.Min != nil {
		c.min = *kind.Min
	}
	switch most := kind.Max.(type) {
	case string:
		c.max = -1
	case float64:
		c.max = int(most)
	}
	var key struct{ Type, RefTable string }
	if kind.Key[0] == '"' {
		if err := json.Unmarshal(kind.Key, &key.Type); err != nil {
			return nil, err
		}
	} else if err := json.Unmarshal(kind.Key, &key); err != nil {
		return nil, err
	}
	c.refTable = key.RefTable
	if c.scalar() {
		c.initial = datum{{key: zeroOf(key.Type)}}
	}
	return c, nil
}

func zeroOf(kind string) any {
	switch kind {
	case "integer", "real":
		return float64(0)
	case "boolean":
		return false
	case "uuid":
		return uuid("00000000-0000-0000-0000-000000000000")
	}
	return ""
}
