/**
 * fast-check's default size is small: lists and bytes of about ten elements, whatever `maxLength` says. Where
 * a property names a length, it means it.
 */
import fc from 'fast-check';

fc.configureGlobal({ defaultSizeToMaxWhenMaxSpecified: true });
