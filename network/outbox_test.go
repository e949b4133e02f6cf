package network

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// outboxTexts are the messages that wait in a queue.
func outboxTexts(t *testing.T, o *Outbox) (texts []string, ids []MessageID) {
	t.Helper()
	found, err := o.Read(t.Context(), MessageID{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found {
		texts, ids = append(texts, string(m.Body)), append(ids, m.ID)
	}
	return texts, ids
}

func TestMessagesAreWrittenWithTheirCauseAndStayUntilRemoved(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		cfg := DefaultConfig()
		cfg.Messages = func(v *View, cause Cause, changes []Change) []Message {
			var list []Message
			for _, ch := range changes {
				if n, ok := ch.After.(*Network); ok && v.Network(n.ID) == n {
					list = append(list, Message{"derived", []byte(cause.Operation + " " + n.Name)})
				}
			}
			return list
		}
		s := open(t, dsn, cfg)
		create := func(name string, fail error) error {
			_, err := s.Update(t.Context(), Cause{Operation: "create_network"}, func(tx *Tx) error {
				tx.Send(Message{"sent", []byte(name)})
				tx.Send(Message{"sent", []byte(name + " again")})
				return errors.Join(tx.CreateNetwork(&Network{Standard: Standard{Name: name}}), fail)
			})
			return err
		}
		for _, name := range []string{"a", "b"} {
			if err := create(name, nil); err != nil {
				t.Fatal(err)
			}
		}
		if create("refused", errors.New("no")) == nil {
			t.Fatal("not refused")
		}
		if _, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error { tx.Send(Message{"sent", []byte("alone")}); return nil }); err != nil {
			t.Fatal(err)
		}
		sent, derived := s.Outbox("sent"), s.Outbox("derived")
		defer derived.Close()
		if texts, _ := outboxTexts(t, derived); fmt.Sprint(texts) != "[create_network a create_network b]" {
			t.Errorf("derived: %q", texts)
		}
		texts, ids := outboxTexts(t, sent)
		if fmt.Sprint(texts) != "[a a again b b again alone]" {
			t.Fatalf("sent: %q", texts)
		}
		if more, err := sent.Read(t.Context(), ids[2], 1); err != nil || len(more) != 1 || string(more[0].Body) != "b again" {
			t.Errorf("the one behind the third: %v, %v", more, err)
		}
		if err := sent.Remove(t.Context(), []MessageID{ids[0], ids[3]}); err != nil {
			t.Fatal(err)
		}
		sent.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, dsn, cfg)
		sent = again.Outbox("sent")
		defer sent.Close()
		if texts, _ := outboxTexts(t, sent); fmt.Sprint(texts) != "[a again b alone]" {
			t.Errorf("after a restart: %q", texts)
		}
		if n, err := sent.Len(t.Context()); n != 3 || err != nil {
			t.Errorf("%d wait, %v", n, err)
		}
	})
}

func TestOneProgramReadsAQueueAndAnotherTakesOver(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		one, other := open(t, dsn, DefaultConfig()), open(t, dsn, DefaultConfig())
		if !one.db.postgres {
			return // an SQLite file has one program
		}
		first, second := one.Outbox("q"), other.Outbox("q")
		defer second.Close()
		outboxTexts(t, first)
		if _, err := one.Update(t.Context(), Cause{}, func(tx *Tx) error { tx.Send(Message{"q", []byte("x")}); return nil }); err != nil {
			t.Fatal(err)
		}
		if texts, _ := outboxTexts(t, second); len(texts) != 0 {
			t.Fatalf("the second reads what the first sends: %q", texts)
		}
		first.Close()
		deadline := time.Now().Add(20 * time.Second)
		for {
			if texts, _ := outboxTexts(t, second); len(texts) == 1 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the second did not take over")
			}
			second.Wait(context.Background(), 10*time.Millisecond)
		}
	})
}
