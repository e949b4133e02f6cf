package ovsdb

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestAttentionEndsWithSilence(t *testing.T) {
	const d = 5 * time.Second
	for _, test := range []struct {
		what string
		act  func(s *splice, cancel context.CancelFunc)
		want time.Duration
	}{
		{"nothing comes", func(*splice, context.CancelFunc) {}, d},
		{"something comes once", func(s *splice, _ context.CancelFunc) { time.Sleep(time.Second); s.bytes.Add(1) }, 2 * d},
		{"something comes for ever, and no answer", func(s *splice, _ context.CancelFunc) {
			for range 19 {
				time.Sleep(time.Second)
				s.bytes.Add(1)
			}
		}, maxTurns * d},
		{"the connection ends", func(s *splice, _ context.CancelFunc) { time.Sleep(time.Second); close(s.done) }, time.Second},
		{"the answer is there", func(_ *splice, cancel context.CancelFunc) { time.Sleep(time.Second); cancel() }, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &splice{done: make(chan struct{})}
			begin := time.Now()
			ctx, cancel := s.attentive(t.Context(), d)
			defer cancel()
			go test.act(s, cancel)
			<-ctx.Done()
			if got := time.Since(begin); got != test.want {
				t.Errorf("%s: it ended after %v, want %v", test.what, got, test.want)
			}
			s.wg.Wait()
		})
	}
}
