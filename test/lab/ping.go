package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	pingInterval   = 50 * time.Millisecond
	streamInterval = 10 * time.Millisecond
	// streamTail is how long a stream that is stopped may wait for a reply
	// before the packets on their way count as lost.
	streamTail = 5 * time.Second
	// lateReplies is how many replies may come before one to an earlier request.
	lateReplies = 3
)

var (
	pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)
	pingReply   = regexp.MustCompile(`icmp_seq=(\d+) ttl=`)
)

// Ping sends count echo requests (IPv4 or IPv6), 50 ms apart, waits one second
// for the last reply and says how many were sent and answered. No answer, and
// an address to which there is no route, are no error. Further options are
// those of ping(8).
func (n *Node) Ping(ctx context.Context, dst string, count int, options ...string) (sent, received int, err error) {
	args := []string{"ping", "-n", "-q", "-c", strconv.Itoa(count), "-i", seconds(pingInterval), "-W", "1"}
	out, err := n.Exec(ctx, append(append(args, options...), dst)...)
	m := pingSummary.FindStringSubmatch(out)
	if m == nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && strings.Contains(out, "unreachable") {
			return 0, 0, nil
		}
		if err == nil {
			err = errors.New("no summary")
		}
		return 0, 0, fmt.Errorf("%s: ping %s: %w", n.name, dst, err)
	}
	return atoi(m[1]), atoi(m[2]), nil
}

// PingStats is what became of a stream of pings.
type PingStats struct {
	// Sent counts requests up to the last one that counts, Lost those of them
	// without a reply.
	Sent, Lost int
	// Duplicates counts replies beyond the first to a request.
	Duplicates int
	// LongestGap is the longest run of lost requests, as time.
	LongestGap time.Duration
	// GapAt is the request with which that begins, GapSince how many are after it
	// up to the last one that counts.
	GapAt, GapSince int
}

// switchGap is the longest gap that a switch in user space makes by itself: while
// an interface comes it reads its routes again, and has none to a tunnel's end.
const switchGap = 100 * time.Millisecond

// Whole is an error when more was lost than the gaps of the switch itself: what
// loses its flows, or its connection, loses packets for longer.
func (s PingStats) Whole() error {
	if s.LongestGap <= switchGap && s.Lost <= s.Sent/100+int(switchGap/streamInterval) {
		return nil
	}
	return fmt.Errorf("%d of %d packets lost, %v in a row", s.Lost, s.Sent, s.LongestGap)
}

// PingStream is a ping in the background, 10 ms apart.
type PingStream struct {
	process *Process
}

// PingStream starts to ping the address and returns when the first reply is
// there, or with an error when ctx ends first. Further options are those of
// ping(8).
func (n *Node) PingStream(ctx context.Context, dst string, options ...string) (*PingStream, error) {
	args := []string{"ping", "-n", "-i", seconds(streamInterval)}
	p, err := n.Start(append(append(args, options...), dst)...)
	if err != nil {
		return nil, err
	}
	s := &PingStream{process: p}
	if err := s.WaitReplies(ctx, 1); err != nil {
		_, errStop := p.Stop()
		return nil, errors.Join(err, errStop)
	}
	return s, nil
}

// Received counts the replies so far.
func (s *PingStream) Received() int { return replies(s.process.Output()) }

// replies leaves out "Destination Host Unreachable", which has no ttl.
func replies(out string) int { return strings.Count(out, " ttl=") }

// WaitReplies waits for that many replies more than there are now.
func (s *PingStream) WaitReplies(ctx context.Context, more int) error {
	want := s.Received() + more
	return s.process.waitFor(ctx, func(out string) bool { return replies(out) >= want })
}

// Stop ends the stream and counts. It waits up to five seconds for one more reply:
// if it comes, later requests were only under way and do not count; if not,
// all that were sent count.
func (s *PingStream) Stop() (PingStats, error) {
	ctx, cancel := context.WithTimeout(context.Background(), streamTail)
	defer cancel()
	alive := s.WaitReplies(ctx, 1) == nil
	counts := 0
	if alive {
		for seq := range replySeqs(s.process.Output()) {
			counts = max(counts, seq)
		}
		_ = s.WaitReplies(ctx, lateReplies) // in vain when the stream ends here
	}
	out, err := s.process.Stop()
	if err != nil {
		return PingStats{}, err
	}
	m := pingSummary.FindStringSubmatch(out)
	if m == nil {
		return PingStats{}, s.process.fail(errors.New("no summary"))
	}
	if !alive {
		counts = atoi(m[1])
	}
	return pingStats(replySeqs(out), counts), nil
}

// replySeqs counts the replies to each request. Sequence numbers on the wire
// have 16 bits: one far below the highest so far is of the next round.
func replySeqs(out string) map[int]int {
	seqs := map[int]int{}
	highest := 0
	for _, m := range pingReply.FindAllStringSubmatch(out, -1) {
		seq := highest&^0xffff | atoi(m[1])
		if seq < highest-0x8000 {
			seq += 0x10000
		}
		highest = max(highest, seq)
		seqs[seq]++
	}
	return seqs
}

func pingStats(seqs map[int]int, last int) PingStats {
	stats := PingStats{Sent: last}
	gap, longest := 0, 0
	for seq := 1; seq <= last; seq++ {
		n := seqs[seq]
		if n == 0 {
			stats.Lost++
			gap++
			if gap > longest {
				longest, stats.GapAt = gap, seq-gap+1
				stats.GapSince = last - stats.GapAt
			}
			continue
		}
		stats.Duplicates += n - 1
		gap = 0
	}
	stats.LongestGap = time.Duration(longest) * streamInterval
	return stats
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// atoi is for what a regular expression of digits found.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}
