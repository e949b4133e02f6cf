package northbound

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// tokenKey is a token, of which only the hash is kept in memory, and whether it
// may have expired.
type tokenKey struct {
	hash         [sha256.Size]byte
	allowExpired bool
}

// String is the key as one of singleflight.
func (k tokenKey) String() string {
	if k.allowExpired {
		return string(k.hash[:]) + "e"
	}
	return string(k.hash[:])
}

// tokenCache remembers what Keystone said, for a time and up to a number of
// tokens: the oldest go first.
type tokenCache struct {
	lifetime time.Duration
	most     int

	mu    sync.Mutex
	items map[tokenKey]*list.Element
	order *list.List // of *cachedToken, the oldest first
}

type cachedToken struct {
	key   tokenKey
	token *token
	until time.Time
}

func newTokenCache(lifetime time.Duration, most int) *tokenCache {
	return &tokenCache{lifetime: lifetime, most: most, items: map[tokenKey]*list.Element{}, order: list.New()}
}

// get returns what is remembered of a token, or nil.
func (c *tokenCache) get(key tokenKey) *token {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return nil
	}
	item := e.Value.(*cachedToken)
	if !time.Now().Before(item.until) {
		c.drop(e)
		return nil
	}
	return item.token
}

func (c *tokenCache) put(key tokenKey, t *token) {
	if c.lifetime <= 0 || c.most <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[key]; ok {
		c.drop(e)
	}
	now := time.Now()
	for e := c.order.Front(); e != nil; e = c.order.Front() {
		if len(c.items) < c.most && now.Before(e.Value.(*cachedToken).until) {
			break
		}
		c.drop(e)
	}
	c.items[key] = c.order.PushBack(&cachedToken{key, t, now.Add(c.lifetime)})
}

func (c *tokenCache) drop(e *list.Element) {
	c.order.Remove(e)
	delete(c.items, e.Value.(*cachedToken).key)
}
