package ovsdb

import (
	"encoding/json"
	"sync"

	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"planck/ovsdb/vswitch"
)

// schemas are those that switches told, of which there are few: a switch's own
// is read once for all that have the same, and what libovsdb is told in its
// place are the tables and columns that matter here, a tenth of it. Read and
// kept for each of a thousand hosts, whole ones would be most of their cost.
type schemas struct {
	matters ovsdb.DatabaseSchema
	text    json.RawMessage // of matters

	mu   sync.Mutex
	fits map[string]bool // by text: it has all that matters
}

// maxSchemas bounds how many are remembered.
const maxSchemas = 16

func newSchemas() (*schemas, error) {
	s := &schemas{matters: vswitch.Schema(), fits: map[string]bool{}}
	var err error
	s.text, err = json.Marshal(s.matters)
	return s, err
}

// has reports whether a switch's schema has all that matters, in types that
// libovsdb takes. What it lacks is for libovsdb to say.
func (s *schemas) has(raw json.RawMessage) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fits, known := s.fits[string(raw)]; known {
		return fits, nil
	}
	theirs, err := readable[*ovsdb.DatabaseSchema](raw)
	if err != nil {
		return false, err
	}
	fits, err := suits(theirs)
	if err != nil {
		return false, err
	}
	if len(s.fits) >= maxSchemas {
		clear(s.fits)
	}
	s.fits[string(raw)] = fits
	return fits, nil
}

// suits asks libovsdb.
func suits(theirs *ovsdb.DatabaseSchema) (fits bool, err error) {
	defer asError(&err)
	tables, err := vswitch.FullDatabaseModel()
	if err != nil || theirs == nil || theirs.Name != tables.Name() {
		return false, err
	}
	_, problems := model.NewDatabaseModel(*theirs, tables)
	return len(problems) == 0, nil
}
