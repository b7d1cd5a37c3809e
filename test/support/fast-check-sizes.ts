/**
 * Sets the size of fast-check. With the default size, lists and byte arrays have about ten elements even if
 * `maxLength` is larger; here they may be as long as `maxLength`.
 */
import fc from 'fast-check';

fc.configureGlobal({ defaultSizeToMaxWhenMaxSpecified: true });
