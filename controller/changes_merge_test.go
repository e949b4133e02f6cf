package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// told is a journal of one of several controllers, answered page by page as Changes does.
type told []ChangeRecord

func (j told) page(q ChangesQuery) *Changes {
	a := &Changes{Changes: []ChangeRecord{}}
	for _, r := range j {
		position, err := ParsePosition(r.Position)
		if err != nil {
			panic(err)
		}
		if q.Before != (Position{}) && position.Compare(q.Before) >= 0 {
			continue
		}
		if len(a.Changes) == q.Most {
			a.Next = a.Changes[q.Most-1].Position
			return a
		}
		a.Changes = append(a.Changes, r)
	}
	return a
}

func flowOn(host string, at int) FlowChange {
	return FlowChange{Host: host, At: time.Unix(int64(at), 0), Text: fmt.Sprint(host, " ", at)}
}

// TestPagesOfSeveralControllersHaveEachRecordOnce: whatever the sizes of pages,
// all records come, in order, with the flows of all.
func TestPagesOfSeveralControllersHaveEachRecordOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	journals := make([]told, 3)
	var want []string
	for revision := uint64(200); revision > 0; revision-- {
		for i := range journals {
			if random.IntN(3) == 0 { // something was sent for another reason
				p := Position{revision, revision*10 + uint64(len(journals)-i)}.String()
				journals[i] = append(journals[i], ChangeRecord{Position: p, Flows: []FlowChange{flowOn(fmt.Sprint("host", i), int(revision))}})
				want = append(want, p+" 1")
			}
		}
		flows := 0
		for i := range journals {
			if random.IntN(2) == 0 { // it has none of the flows that are asked for
				continue
			}
			flows++
			journals[i] = append(journals[i], ChangeRecord{Position: Position{Revision: revision}.String(), Flows: []FlowChange{flowOn(fmt.Sprint("host", i), int(revision))}})
		}
		if flows > 0 {
			want = append(want, fmt.Sprintf("%d %d", revision, flows))
		}
	}
	for _, size := range []int{1, 7, 50, 1000} {
		var got []string
		q := ChangesQuery{Most: size}
		for {
			var answers []*Changes
			for _, j := range journals {
				answers = append(answers, j.page(q))
			}
			m, err := MergeChanges(q, answers)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Changes) > size {
				t.Errorf("%d records on a page of %d", len(m.Changes), size)
			}
			for _, r := range m.Changes {
				got = append(got, fmt.Sprintf("%s %d", r.Position, len(r.Flows)))
			}
			if m.Next == "" {
				break
			}
			if q.Before, err = ParsePosition(m.Next); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d: want (-), got (+):\n%s", size, diff)
		}
	}
}

func TestMergedChangesSayWhatEachControllerKnows(t *testing.T) {
	object := ObjectChange{Resource: Resource{Kind: "port", ID: "p1"}}
	named := object
	named.Name, named.Change = "web", changeAdded
	first := &Changes{FlowsSince: time.Unix(100, 0), ModelSince: 7, Changes: []ChangeRecord{
		{Position: "9", Objects: []ObjectChange{object}, Flows: []FlowChange{flowOn("host2", 9), flowOn("host1", 8)}, MoreFlows: 3},
	}}
	second := &Changes{FlowsSince: time.Unix(200, 0), ModelSince: 3, Changes: []ChangeRecord{
		{Position: "9", Objects: []ObjectChange{named}, Flows: []FlowChange{flowOn("host1", 7)}, MoreFlows: 1},
	}}
	got, err := MergeChanges(ChangesQuery{MostFlows: 2}, []*Changes{first, second})
	if err != nil {
		t.Fatal(err)
	}
	want := &Changes{FlowsSince: time.Unix(200, 0), ModelSince: 3, Changes: []ChangeRecord{
		{Position: "9", Objects: []ObjectChange{named}, Flows: []FlowChange{flowOn("host1", 7), flowOn("host1", 8)}, MoreFlows: 5},
	}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(ChangeRecord{})); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if len(first.Changes[0].Flows) != 2 || first.Changes[0].Objects[0].Name != "" {
		t.Errorf("an answer was changed: %+v", first.Changes[0])
	}
}

// TestAFlowThatOneHasIsNotAnsweredByWhatItStandsFor: the others have changes in its place.
func TestAFlowThatOneHasIsNotAnsweredByWhatItStandsFor(t *testing.T) {
	has := &Changes{FlowFound: true, Changes: []ChangeRecord{{Position: "5"}}}
	hasNot := &Changes{Note: "in its place", Changes: []ChangeRecord{{Position: "4"}, {Position: "3"}}}
	for _, answers := range [][]*Changes{{has, hasNot}, {hasNot, has}} {
		m, err := MergeChanges(ChangesQuery{}, answers)
		if err != nil || len(m.Changes) != 1 || m.Changes[0].Position != "5" || m.Note != "" || !m.FlowFound {
			t.Errorf("%+v, %v", m, err)
		}
	}
	m, err := MergeChanges(ChangesQuery{}, slices.Repeat([]*Changes{hasNot}, 2))
	if err != nil || len(m.Changes) != 2 || m.Note == "" {
		t.Errorf("%+v, %v", m, err)
	}
}
